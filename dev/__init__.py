"""Programs for working on the service on one machine; none of them is part of what is deployed."""
