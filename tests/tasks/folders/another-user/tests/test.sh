#!/bin/bash
if [ "$(cat /home/worker/name.txt)" = worker ] && [ "$(id -un)" = root ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
