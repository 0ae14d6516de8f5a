"""Policies: from histories to decisions. Renderers (history -> messages), parsers (completion -> decision), actors."""

from leap.policies.base import Act, ExpertPolicy, Player, Policy, TeacherPolicy

__all__ = ["Act", "ExpertPolicy", "Player", "Policy", "TeacherPolicy"]
