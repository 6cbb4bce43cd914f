"""The readers' comments, served by the same process as the pages: store, rendering, guards, API, moderation."""
