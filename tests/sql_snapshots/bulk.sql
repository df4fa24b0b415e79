-- copy_rows()
COPY {} ({}) FROM STDIN (FORMAT BINARY)

-- _records()
COPY ({}) TO STDOUT (FORMAT BINARY)
