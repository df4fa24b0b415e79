"""The command line: verbs under nouns, one file per noun."""
