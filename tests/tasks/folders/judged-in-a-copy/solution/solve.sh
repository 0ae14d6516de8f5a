echo ready > /app/state.txt
