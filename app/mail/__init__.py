"""The mail adapter: from a registration to the mail server's final reply.

smtp        what is said over a connection: MAIL, RCPT, DATA, the content; each sender's kept connection
connection  how it is opened: Flask-Mail, EHLO, STARTTLS, login; why that failed
wire        its bytes: replies, and the bound on them
replies     what a reply means, and whose fault a refusal is
messages    the mails of all services, filled in for each registration
composing   from what a mail says to a MIME message
rendering   from a service's brand, sentences and layout to what its mails say
languages   the sentences of each language, and which language a mail gets
wording     durations and times in a language
colors      a brand's colour, made readable
reports     what a message of others says of a mail of ours
incoming    messages of others, taken apart in a bounded time

Each imports only those below it, and of the app `config`, `domain`, `errors` and `sockets`.
"""
