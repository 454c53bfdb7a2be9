"""The mail adapter: from a registration to the mail server's final reply.

messages      what a mail says: templates, MIME, headers
smtp          one sender's connection: when it is opened, checked, renewed, and a mail tried once more
conversation  what is said over it: MAIL, RCPT, DATA, the content, RSET
connection    how it is opened: Flask-Mail, EHLO, STARTTLS, login; why that failed
wire          its bytes: deadlines, the bound on replies, TLS
replies       what a reply means, and whose fault a refusal is

Each imports only those below it, and of the app `config`, `domain`, `errors` and `threads`.
"""
