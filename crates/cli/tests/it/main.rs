//! The program as its users meet it: the real binary, real sockets, real disks, other people's clients.

mod clients;
mod command_line;
mod doors;
mod prometheus;
mod readers;
mod sdks;
mod site;
mod survive;
mod trainticket;
