-- copy_rows()
COPY {} ({}) FROM STDIN (FORMAT BINARY)

-- read_vectors()
COPY ({}) TO STDOUT (FORMAT BINARY)
