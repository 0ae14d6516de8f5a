#!/bin/bash
numbers=0 sum=0
[ "$(cat /app/numbers.txt)" = "$(seq 5)" ] && numbers=1
[ "$(cat /app/sum.txt)" = 15 ] && sum=1
echo "{\"numbers\": $numbers, \"sum\": $sum, \"reward\": $(( numbers * sum ))}" > /logs/verifier/reward.json
