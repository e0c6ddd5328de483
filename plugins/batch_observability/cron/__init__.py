"""The cron adapter: jobs that cron, systemd or a person starts, observed as Airflow's tasks are."""
