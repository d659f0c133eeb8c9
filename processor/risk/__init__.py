"""Risk: a score from 0 (none) to 99 for a payment, before the PSP hears of it.

An assessor is a `RiskAssessor`: the rules in this process, or the service that runs them in its own.
"""

from processor.risk.assessor import Assessment, RiskAssessor
from processor.risk.rule_assessor import RuleAssessor
from processor.risk.rules import Rules, assess_amount
from processor.risk.settings import RiskSettings

__all__ = ["Assessment", "RiskAssessor", "RiskSettings", "RuleAssessor", "Rules", "assess_amount"]
