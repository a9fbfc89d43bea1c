"""What is kept of evaluations: rows in a database, reports for people."""
