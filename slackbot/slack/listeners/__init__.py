"""What Bolt calls for each kind of event; every listener records and returns."""
