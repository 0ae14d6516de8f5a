echo three > /app/third.txt
