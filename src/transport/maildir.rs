pub struct Maildir;
