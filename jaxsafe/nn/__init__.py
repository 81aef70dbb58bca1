# SPDX-License-Identifier: Apache-2.0
"""Flax modules that two systems or more share."""
