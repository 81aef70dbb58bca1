# SPDX-License-Identifier: Apache-2.0
"""Run folders as one HTML page: `runs` reads them, `page` writes it."""
