"""The engine room: requests, the step loop, streams, offline and async engines, its process."""
