seq 5 > /app/numbers.txt
echo 15 > /app/sum.txt
