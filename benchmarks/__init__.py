# SPDX-License-Identifier: Apache-2.0
"""Throughput, measured: warm-up and compile apart, median and spread of repeats."""
