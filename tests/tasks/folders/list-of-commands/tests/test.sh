#!/bin/bash
# One point for all checks.
points=1
check() { if eval "$2"; then echo "ok $1"; else echo "not ok $1"; points=0; fi; }

check "apple is counted" 'grep -qx "3 apple" /app/out/counts.txt'
check "the order is right" '[ "$(head -n1 /app/out/counts.txt)" = "3 apple" ]'
check "counts.txt was moved" '[ ! -e /app/counts.txt ]'
check "the image's variables are there" '[ "$KIND $PLACE" = "fruit /app/in box" ]'
check "the mode was set" '[ "$(stat -c %a /app/one.txt)" = 600 ]'
echo $points > /logs/verifier/reward.txt
