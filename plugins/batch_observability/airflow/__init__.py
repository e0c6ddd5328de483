"""The Airflow adapter. Airflow versions differ in `compat`, and nowhere else."""
