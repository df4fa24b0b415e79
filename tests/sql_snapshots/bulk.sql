-- copy_rows()
COPY {} ({}) FROM STDIN (FORMAT BINARY)

-- copy_arrays()
COPY {} ({}) FROM STDIN (FORMAT BINARY)

-- _records()
COPY ({}) TO STDOUT (FORMAT BINARY)
