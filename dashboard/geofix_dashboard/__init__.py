"""The dashboard: Streamlit pages that read the database as the reader role; never torch."""
