"""The laws, one folder per kind; see CONTRIBUTING.md."""
