# SPDX-License-Identifier: Apache-2.0
"""SACPO: alignment to reward, then to safety (Wachi et al., NeurIPS 2024, arXiv 2404.11049)."""
