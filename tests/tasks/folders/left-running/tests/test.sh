#!/bin/bash
ask() { echo "$1" > /app/ask; cat /app/answer; }
export -f ask
if [ -p /app/ask ] && [ "$(timeout 5 bash -c 'ask hello')" = "you said: hello" ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
