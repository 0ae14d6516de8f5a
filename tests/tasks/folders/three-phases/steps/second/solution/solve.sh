echo two > /app/second.txt
