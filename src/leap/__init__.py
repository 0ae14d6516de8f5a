"""leap: language-model agents that learn from privileged feedback and become better than their teacher.

The system of Choudhury & Sodhi, "Better than Your Teacher: LLM Agents that learn from Privileged AI Feedback"
(arXiv 2410.05434). Importing the package imports no environment, no model library and no training library.
"""

from __future__ import annotations

__version__ = "0.1.0"
