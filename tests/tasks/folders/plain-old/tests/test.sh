#!/bin/bash
# One point for all checks.
points=1
check() { if eval "$2"; then echo "ok $1"; else echo "not ok $1"; points=0; fi; }

check "the greeting is there" '[ "$(cat /app/greeting.txt 2>/dev/null)" = hello ]'
echo $points > /logs/verifier/reward.txt
