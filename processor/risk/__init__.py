"""Risk: a score from 0 (none) to 99 for a payment, before the PSP hears of it.

An assessor is a `RiskAssessor`: in-process rules now, a service of its own over `risk.proto` just as well.
"""

from processor.risk.assessor import Assessment, RiskAssessor
from processor.risk.rules import RuleAssessor, assess_amount
from processor.risk.settings import RiskSettings

__all__ = ["Assessment", "RiskAssessor", "RiskSettings", "RuleAssessor", "assess_amount"]
