"""InterCode Bash: NL2Bash's 200 tasks on four file systems."""
