"""Parts that tests share: commands, clusters, certificates, servers, waiting, and the rules for what is missing."""
