echo one > /app/first.txt
