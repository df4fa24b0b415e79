"""Celery workers: they take job ids from the broker and run the jobs that they can claim."""
