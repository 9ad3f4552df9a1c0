"""What tests start and stop: real stores, engines, networks, faults. Nothing here is imported by the product."""
