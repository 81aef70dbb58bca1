# SPDX-License-Identifier: Apache-2.0
"""AdvantageNAS: sparse one-shot architecture search (Sato et al., AAAI 2021, arXiv 2012.06138)."""
