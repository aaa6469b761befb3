"""Parts of backup_monitor.py: what is copied, checked, put back and watched."""
