"""Pipeline files: the whole way of one data set, each stage resumable and skipped when nothing changed."""
