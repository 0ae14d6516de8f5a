#!/bin/bash
mkfifo /app/ask /app/answer
cat > /app/server.sh <<'END'
while read -r line < /app/ask; do echo "you said: $line" > /app/answer; done
END
setsid bash /app/server.sh >/dev/null 2>&1 &
