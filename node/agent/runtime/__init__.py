"""Running a tenant's containers: the port, its Docker adapter, volumes' quotas and the firewall. Knows no bucket."""
