# SPDX-License-Identifier: Apache-2.0
"""AdvantageNAS: one-shot architecture search with credit (Sato et al., AAAI 2021, 2012.06138)."""
