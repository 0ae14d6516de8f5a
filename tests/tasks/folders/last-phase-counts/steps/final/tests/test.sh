#!/bin/bash
if [ -e /app/final ]; then echo 1.0; else echo 0.0; fi > /logs/verifier/reward.txt
