"""The parts of scripts/deploy.py: files for systemd, and checks of what runs."""
