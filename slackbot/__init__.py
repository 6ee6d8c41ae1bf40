"""ShopMate: ThreadCo's assistant in Slack. docs/ARCHITECTURE.md says where to find what."""
