"""HTTP: bodies, problems, answers, API keys, schemas, the OpenAPI document, pages."""
