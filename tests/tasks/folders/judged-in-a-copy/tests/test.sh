#!/bin/bash
if [ "$(cat /logs/artifacts/state.txt)" = ready ] && [ ! -e /app/state.txt ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
