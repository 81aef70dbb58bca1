# SPDX-License-Identifier: Apache-2.0
"""Worlds: tasks as pure functions over a model, and sets of models."""
