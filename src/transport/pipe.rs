pub struct Pipe;
pub struct PipeUser;
