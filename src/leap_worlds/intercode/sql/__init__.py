"""InterCode SQL: Spider's dev set on a MariaDB or MySQL server."""
