"""Pure decisions of the controller: model, lifecycle, placement, reconcile. No clock, randomness or I/O in here."""
